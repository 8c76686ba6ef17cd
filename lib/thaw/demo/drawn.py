"""Drawn photos, for a study that needs no download.

`DrawnFlowers` is a TFDS data set (``drawn_flowers``) of five kinds of flowers; `draw_things` makes the photos of
another task, which `thaw.demo.pretraining` teaches to a network, so that the study has one to unfreeze. Every photo
depends on nothing but its seed and its index.
"""

import colorsys

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageDraw, ImageFilter

SIDE = 64  # pixels
PHOTOS = 600
WILD = 0.2  # of the flowers; see `photo`
OVERSAMPLE = 3  # drawn this many times larger, then averaged: smooth edges
LICENCE = "CC0 1.0"

TURN = 2 * np.pi


def _rgb(hue, saturation, value):
    return tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue % 1, saturation, min(value, 1)))


def _shade(colour, factor):
    return tuple(max(0, min(255, int(c * factor))) for c in colour[:3])


def _green(rng, value=0.5):
    return _rgb(rng.uniform(0.2, 0.38), rng.uniform(0.4, 0.8), value * rng.uniform(0.7, 1.2))


def _vivid(rng):
    return _rgb(rng.random(), rng.uniform(0.35, 0.95), rng.uniform(0.6, 1))


class Pen:
    """Draws shapes, given in units of the subject's radius, in the subject's pose.

    Parameters
    ----------
    image : PIL.Image.Image
    rng : numpy.random.Generator
    centre : pair of float
        In pixels.
    radius : float
        In pixels.
    turn : float
        Rotation in radians.
    tilt : float
        What is left of the height when the subject is seen from the side, 1 from above.
    lean : float
        Direction of the tilt in radians.
    """

    def __init__(self, image, rng, centre, radius, turn=0.0, tilt=1.0, lean=0.0):
        def rotation(a):
            return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])

        self.canvas = ImageDraw.Draw(image, "RGBA")
        self.rng, self.centre, self.radius = rng, np.asarray(centre), radius
        self.matrix = radius * rotation(lean) @ np.diag([1, tilt]) @ rotation(turn - lean)
        self.light = rng.uniform(0, TURN)

    def place(self, points):
        return [tuple(p) for p in np.asarray(points, float) @ self.matrix.T + self.centre]

    def shape(self, points, colour, edge=0.7):
        points = self.place(points)
        self.canvas.polygon(points, fill=colour)
        if edge:
            width = max(1, round(self.radius / 40))
            self.canvas.line([*points, points[0]], fill=(*_shade(colour, edge), 150), width=width)

    def line(self, points, colour, width):
        self.canvas.line(self.place(points), fill=colour, width=max(1, round(width * self.radius)), joint="curve")

    def disc(self, x, y, radius, colour, height=1.0, edge=0.7):
        a = np.linspace(0, TURN, 24, endpoint=False)
        self.shape(np.column_stack([x + radius * np.cos(a), y + height * radius * np.sin(a)]), colour, edge)

    def star(self, corners, inner, colour, outer=1.0, phase=-TURN / 4):
        a = phase + np.arange(2 * corners) * TURN / (2 * corners)
        r = np.where(np.arange(2 * corners) % 2, inner, outer)[:, None]
        self.shape(r * np.c_[np.cos(a), np.sin(a)], colour)

    def petal(self, angle, start, end, width, colour, widest=0.6, blunt=0.7, vein=True):
        """A petal or leaf along `angle` from radius `start` to `end`; blunt below 1 rounds its tip."""
        t = np.linspace(0, 1, 10)
        half = width * np.sin(np.pi * t ** (np.log(0.5) / np.log(widest))) ** blunt
        along, bend = start + (end - start) * t, self.rng.normal(0, 0.04) * t**2
        outline = np.column_stack([np.append(along, along[::-1]), np.append(bend + half, (bend - half)[::-1])])
        c, s = np.cos(angle), np.sin(angle)
        colour = _shade(colour, 1 + 0.16 * np.cos(angle - self.light) + self.rng.normal(0, 0.05))
        self.shape(outline @ np.array([[c, s], [-s, c]]), colour)
        if vein:
            self.line(
                [(start * c, start * s), ((0.2 * start + 0.8 * end) * c, (0.2 * start + 0.8 * end) * s)],
                (*_shade(colour, 0.75), 110),
                0.02,
            )

    def ring(self, count, start, end, width, colour, phase=0.0, ragged=0.06, **form):
        for angle in self.rng.permutation(phase + np.arange(count) * TURN / count):
            jitter = self.rng.normal(0, ragged, 2)
            self.petal(angle + jitter[0], start, end * (1 + jitter[1]), width, colour, **form)


# Five kinds of flowers, told apart by their form: colours are shared.


def _flower_colour(rng, hue, spread):
    """A petal colour: mostly the kind's own, sometimes any a flower may have."""
    if rng.random() < 0.15:
        hue, spread = rng.choice([0.0, 0.08, 0.14, 0.78, 0.9, 0.6]), 0.03
    pale = rng.random() < 0.25
    return _rgb(
        hue + rng.normal(0, spread), rng.uniform(0.03, 0.3) if pale else rng.uniform(0.5, 0.95), rng.uniform(0.8, 1)
    )


def daisy(pen, rng):
    colour = _rgb(rng.random(), rng.uniform(0, 0.12), 0.97) if rng.random() < 0.45 else _flower_colour(rng, 0.88, 0.05)
    count, width = rng.integers(9, 20), rng.uniform(0.09, 0.15)
    if rng.random() < 0.5:
        pen.ring(count, 0.1, 1.0, width, _shade(colour, 0.85), TURN / count / 2, widest=0.7, blunt=0.55)
    pen.ring(count, 0.1, 0.97, width, colour, widest=0.7, blunt=0.55)
    heart = _rgb(rng.uniform(0.08, 0.15), 0.85, rng.uniform(0.6, 0.95))
    _heart(pen, rng, rng.uniform(0.2, 0.34), heart, 40)


def sunflower(pen, rng):
    colour = _flower_colour(rng, 0.13, 0.02)
    count, width = rng.integers(13, 24), rng.uniform(0.09, 0.15)
    pen.ring(count, 0.2, 1.05, width, _shade(colour, 0.8), TURN / count / 2, widest=0.5, blunt=1.1)
    pen.ring(count, 0.2, 0.95, width, colour, widest=0.5, blunt=1.1)
    heart = _rgb(rng.uniform(0.05, 0.12), rng.uniform(0.5, 0.85), rng.uniform(0.25, 0.75))
    _heart(pen, rng, rng.uniform(0.32, 0.5), heart, 110)


def _heart(pen, rng, radius, colour, seeds):
    """The disc at the centre, its seeds on Vogel's spiral (Vogel, 1979)."""
    pen.disc(0, 0, radius, colour)
    for i in range(seeds):
        r, a = radius * np.sqrt((i + 0.5) / seeds), i * 2.39996
        x, y = pen.place([(r * np.cos(a), r * np.sin(a))])[0]
        tone = _shade(colour, rng.uniform(0.6, 1.45))
        size = 0.035 * pen.radius
        pen.canvas.ellipse((x - size, y - size, x + size, y + size), fill=tone)


def dandelion(pen, rng):
    if rng.random() < 0.25:  # gone to seed
        for angle in rng.uniform(0, TURN, 55):
            r = rng.uniform(0.55, 1)
            tip = (r * np.cos(angle), r * np.sin(angle))
            pen.line([(0, 0), tip], (235, 235, 225, 130), 0.02)
            pen.disc(*tip, 0.09, (250, 250, 245, 130), edge=None)
        pen.disc(0, 0, 0.14, (120, 95, 60))
        return
    colour = _flower_colour(rng, 0.14, 0.02)
    for step, reach in enumerate((1.0, 0.84, 0.66, 0.48, 0.3)):
        pen.ring(
            int(34 * reach) + 6,
            0.05,
            reach,
            0.055,
            _shade(colour, 0.76 + 0.07 * step),
            rng.random(),
            0.09,
            widest=0.75,
            blunt=0.7,
            vein=False,
        )


def rose(pen, rng):
    colour = _flower_colour(rng, 0.97, 0.03)
    reach, phase, layers = 1.0, rng.random(), rng.integers(5, 8)
    for layer in range(layers):
        count = 6 if layer < 2 else 4 if layer < 4 else 3
        tone = _shade(colour, 1.02 - 0.34 * layer / layers)
        for k in range(count):
            a = phase + k * TURN / count + rng.normal(0, 0.1)
            wide = reach * rng.uniform(0.5, 0.6)
            lit = _shade(tone, 1 + 0.18 * np.cos(a - pen.light))
            pen.disc(0.48 * reach * np.cos(a), 0.48 * reach * np.sin(a), wide, lit, edge=0.62)
        phase, reach = phase + 0.8, reach * 0.76
    a = np.linspace(0, 2.2 * TURN, 40)
    r = reach * 1.3 * a / a[-1]
    pen.line(np.c_[r * np.cos(a), r * np.sin(a)], (*_shade(colour, 0.42), 220), 0.045)


def tulip(pen, rng):
    colour = _flower_colour(rng, 0.95, 0.06)
    if rng.random() < 0.3:  # from above, open
        pen.ring(3, 0, 1, 0.42, _shade(colour, 0.85), widest=0.55, blunt=0.75)
        pen.ring(3, 0, 0.95, 0.4, colour, TURN / 6, widest=0.55, blunt=0.75)
        pen.ring(6, 0, 0.3, 0.05, (60, 45, 30), blunt=0.6, vein=False)
        return
    up, width = -TURN / 4, rng.uniform(0.3, 0.42)
    spread = rng.uniform(0.2, 0.4)
    for side, tone in ((-1.5, 0.7), (1.5, 0.72), (-0.8, 0.86), (0.8, 0.9), (0, 1.03)):
        c, s = np.cos(up + spread * side * 0.5), np.sin(up + spread * side * 0.5)
        t = np.linspace(0, 1, 13)
        half = width * (1.15 if side == 0 else 0.95) * np.sin(np.pi * t**0.75) ** 0.8
        along = -0.85 + 1.8 * t
        outline = np.r_[
            np.c_[along, half + 0.16 * side * np.sin(np.pi * t)],
            np.c_[along, 0.16 * side * np.sin(np.pi * t) - half][::-1],
        ]
        pen.shape(outline @ np.array([[c, s], [-s, c]]), _shade(colour, tone), 0.6)


FLOWERS = {f.__name__: f for f in (daisy, dandelion, rose, sunflower, tulip)}


# Another task, for the pre-training: things that are not flowers.


def butterfly(pen, rng):
    upper, lower = _vivid(rng), _vivid(rng)
    for side in (-1, 1):
        middle = -TURN / 4 + side * 2.2
        pen.petal(middle, 0.05, 0.85, 0.3, lower)
        pen.petal(-TURN / 4 + side * 0.95, 0.05, 1.15, 0.4, upper, widest=0.68)
        pen.disc(side * 0.62, -0.42, 0.13, lower)
        pen.line([(0, -0.4), (side * 0.25, -0.9)], (40, 30, 30), 0.04)
    pen.disc(0, 0, 0.1, (50, 40, 40), 4.5)


def fish(pen, rng):
    colour = _vivid(rng)
    pen.shape([(0.5, 0), (1.1, -0.45), (0.95, 0), (1.1, 0.45)], _shade(colour, 0.8))
    pen.petal(-1.9, 0.1, 0.75, 0.2, _shade(colour, 0.8))
    pen.petal(0, -1, 0.75, 0.46, colour, widest=0.45)
    for x in rng.uniform(-0.4, 0.4, 3):
        pen.line([(x, -0.3), (x + 0.08, 0), (x, 0.3)], _shade(colour, 0.6), 0.06)
    pen.disc(-0.65, -0.1, 0.1, (245, 245, 245))
    pen.disc(-0.67, -0.1, 0.05, (20, 20, 20))


def house(pen, rng):
    pen.shape([(-0.75, 0), (0.75, 0), (0.75, 0.9), (-0.75, 0.9)], _vivid(rng))
    pen.shape([(-0.95, 0), (0, -0.9), (0.95, 0)], _vivid(rng))
    pen.shape([(-0.15, 0.9), (-0.15, 0.35), (0.15, 0.35), (0.15, 0.9)], _shade(_vivid(rng), 0.6))
    for x in (-0.48, 0.48):
        pen.shape([(x - 0.15, 0.2), (x + 0.15, 0.2), (x + 0.15, 0.5), (x - 0.15, 0.5)], (230, 235, 200))


def leaf(pen, rng):
    colour = _vivid(rng) if rng.random() < 0.5 else _green(rng, 0.7)
    pen.petal(0, -1, 1.0, rng.uniform(0.35, 0.55), colour, widest=rng.uniform(0.35, 0.5), blunt=1.1)
    for x in np.linspace(-0.7, 0.5, 5):
        for side in (-1, 1):
            pen.line([(x, 0), (x + 0.22, side * 0.26)], _shade(colour, 0.7), 0.03)


def star(pen, rng):
    pen.star(rng.integers(4, 8), rng.uniform(0.4, 0.55), colour := _vivid(rng))
    pen.star(5, 0.2, _shade(colour, 1.3), 0.35)


def spiral(pen, rng):
    a = np.linspace(0, TURN * rng.uniform(2.2, 3.5), 90)
    pen.disc(0, 0, 1, colour := _vivid(rng))
    pen.line(np.c_[a * np.cos(a), a * np.sin(a)] / a[-1] * 0.95, _shade(colour, rng.choice([0.5, 1.6])), 0.09)


def wheel(pen, rng):
    spokes = rng.integers(5, 13)
    pen.disc(0, 0, 1, colour := _vivid(rng))
    pen.disc(0, 0, 0.78, _vivid(rng))
    for a in np.arange(spokes) * TURN / spokes:
        pen.line([(0, 0), (0.85 * np.cos(a), 0.85 * np.sin(a))], colour, 0.08)
    pen.disc(0, 0, rng.uniform(0.15, 0.35), _shade(colour, 0.7))


def gear(pen, rng):
    pen.star(rng.integers(9, 18), rng.uniform(0.7, 0.85), colour := _vivid(rng))
    pen.disc(0, 0, 0.62, _shade(colour, 1.15))
    pen.disc(0, 0, rng.uniform(0.2, 0.4), _vivid(rng))


def ball(pen, rng):
    sectors = 2 * rng.integers(2, 5)
    colours = _vivid(rng), _vivid(rng)
    for k in range(sectors):
        a = np.linspace(k, k + 1, 9) * TURN / sectors
        pen.shape(np.r_[np.zeros((1, 2)), np.c_[np.cos(a), np.sin(a)]], colours[k % 2])


def snowflake(pen, rng):
    colour, arms = _vivid(rng), rng.integers(5, 9)
    for a in np.arange(arms) * TURN / arms:
        pen.line([(0, 0), (np.cos(a), np.sin(a))], colour, 0.07)
        for r, side in ((0.5, 0.28), (0.5, -0.28), (0.75, 0.22), (0.75, -0.22)):
            pen.line(
                [(r * np.cos(a), r * np.sin(a)), ((r + 0.22) * np.cos(a + side), (r + 0.22) * np.sin(a + side))],
                colour,
                0.06,
            )


def berries(pen, rng):
    colour = _vivid(rng)
    for r, count in ((0.72, 9), (0.36, 5), (0, 1)):
        for a in np.arange(count) * TURN / count + rng.random():
            x, y = r * np.cos(a), r * np.sin(a)
            pen.disc(x, y, 0.28, tone := _shade(colour, rng.uniform(0.8, 1.1)), edge=0.55)
            pen.disc(x - 0.08, y - 0.08, 0.07, _shade(tone, 1.5), edge=None)


def pompon(pen, rng):
    for a in rng.uniform(0, TURN, 90):
        r = rng.uniform(0.5, 1)
        pen.line([(0, 0), (r * np.cos(a), r * np.sin(a))], _shade(_vivid(rng), 0.9), 0.05)


def apple(pen, rng):
    pen.disc(-0.3, 0, 0.62, colour := _vivid(rng), 1.15)
    pen.disc(0.3, 0, 0.62, colour, 1.15, edge=None)
    pen.disc(-0.35, -0.25, 0.14, _shade(colour, 1.6), 1.5, edge=None)
    pen.line([(0, -0.5), (0.08, -1)], (90, 60, 30), 0.1)
    pen.petal(-0.6, 0.6, 1.15, 0.13, _green(rng, 0.7))


def mushroom(pen, rng):
    pen.shape([(-0.2, 0), (0.2, 0), (0.3, 0.9), (-0.3, 0.9)], (235, 225, 205))
    a = np.linspace(TURN / 2, TURN, 20)
    pen.shape(np.c_[0.95 * np.cos(a), 0.15 + 0.95 * np.sin(a)], colour := _vivid(rng))
    for x, y in ((-0.5, -0.1), (0, -0.45), (0.45, -0.15), (0.05, -0.05)):
        pen.disc(x, y, 0.12, _shade(colour, 1.7))


def target(pen, rng):
    colours = _vivid(rng), _vivid(rng)
    rings = rng.integers(3, 6)
    for k in range(rings):
        pen.disc(0, 0, 1 - k / rings, colours[k % 2])


def tree(pen, rng):
    colour = _vivid(rng) if rng.random() < 0.4 else _green(rng, 0.6)
    pen.shape([(-0.12, 0), (0.12, 0), (0.16, 1), (-0.16, 1)], (105, 75, 50))
    for x, y in rng.normal(0, 0.26, (12, 2)):
        pen.disc(x, y - 0.4, 0.34, _shade(colour, 0.85 - 0.4 * y), edge=0.85)


THINGS = {
    f.__name__: f
    for f in (
        apple,
        ball,
        berries,
        butterfly,
        fish,
        gear,
        house,
        leaf,
        mushroom,
        pompon,
        snowflake,
        spiral,
        star,
        target,
        tree,
        wheel,
    )
}
UPRIGHT = tulip, apple, house, mushroom, tree  # by gravity; all else lies as it fell


def _backdrop(rng, side):
    kind = rng.choice(["sky", "meadow", "bokeh"])
    top = {
        "sky": _rgb(rng.uniform(0.53, 0.62), rng.uniform(0.25, 0.6), rng.uniform(0.7, 0.95)),
        "meadow": _green(rng, 0.75),
        "bokeh": _rgb(rng.random(), rng.uniform(0.2, 0.6), rng.uniform(0.4, 0.8)),
    }[kind]
    bottom = _green(rng, 0.5) if rng.random() < 0.7 else _shade(top, rng.uniform(0.5, 1.2))
    fade = np.linspace(0, 1, side)[:, None, None] ** rng.uniform(0.6, 2)
    pixels = np.broadcast_to(np.array(top) * (1 - fade) + np.array(bottom) * fade, (side, side, 3))
    image = Image.fromarray(pixels.astype("uint8"))
    pen = Pen(image, rng, (0, 0), side)
    for _ in range(rng.integers(4, 14)):
        x, y = rng.random(2)
        if kind == "sky":
            pen.disc(x, 0.6 * y, rng.uniform(0.05, 0.16), (255, 255, 255, 80), 0.5, edge=None)
        elif kind == "bokeh":
            pen.disc(x, y, rng.uniform(0.03, 0.12), (*_vivid(rng), 80), edge=None)
    if kind != "bokeh":
        for x in rng.random(rng.integers(5, 25)):
            reach = rng.uniform(0.2, 0.7)
            pen.shape([(x, 1.05), (x + 0.04, 1.05), (x + rng.normal(0, 0.15), 1.05 - reach)], _green(rng), 0.9)
    return image.filter(ImageFilter.GaussianBlur(side * rng.uniform(0.008, 0.03)))


def _subject(image, rng, paint, centre, radius):
    upright = paint in UPRIGHT
    turn = rng.normal(0, 0.3) if upright else rng.uniform(0, TURN)
    tilt = rng.uniform(0.8, 1) if upright else rng.uniform(0.5, 1)
    if paint in FLOWERS.values():
        pen = Pen(image, rng, centre, radius)
        sway, t = rng.normal(0, 0.5), np.linspace(0, 1, 12)
        pen.line(np.column_stack([sway * t**2, 3 * t]), _green(rng, 0.5), rng.uniform(0.08, 0.14))
        for side in (-1, 1):
            stem = Pen(
                image, rng, (centre[0] + sway * radius * 0.3, centre[1] + rng.uniform(1.2, 1.9) * radius), radius
            )
            stem.petal(
                -TURN / 4 + side * rng.uniform(0.3, 1.2),
                0,
                rng.uniform(0.7, 1.3),
                rng.uniform(0.1, 0.25),
                _green(rng, 0.55),
                widest=0.45,
                blunt=1,
            )
    paint(Pen(image, rng, centre, radius, turn, tilt, rng.uniform(0, TURN / 2)), rng)


def photo(paint, rng, wild):
    """One drawn photo of the subject that `paint(pen, rng)` draws.

    Parameters
    ----------
    paint : callable
    rng : numpy.random.Generator
    wild : float
        How much stands in the way of telling the subject: other subjects, grass before the lens, blur, noise; 0 to 1.

    Returns
    -------
    numpy.ndarray
        uint8, of shape (SIDE, SIDE, 3).
    """
    side = SIDE * OVERSAMPLE
    image = _backdrop(rng, side)
    for _ in range(rng.binomial(2, 0.4 * wild)):
        _subject(image, rng, paint, rng.uniform(0.1, 0.9, 2) * side, side * rng.uniform(0.1, 0.17))
        image = image.filter(ImageFilter.GaussianBlur(side * 0.01))
    _subject(
        image, rng, paint, (0.5 + rng.normal(0, 0.09 * wild, 2)) * side, side * rng.uniform(0.4 - 0.2 * wild, 0.43)
    )
    for _ in range(rng.binomial(3, 0.5 * wild)):  # leaves of grass before the lens
        a = rng.uniform(0, TURN)
        blade = Pen(image, rng, (0.5 + 0.6 * np.array([np.cos(a), np.sin(a)])) * side, side)
        blade.petal(
            a + TURN / 2 + rng.normal(0, 0.35),
            -0.1,
            rng.uniform(0.2, 0.6),
            rng.uniform(0.03, 0.08),
            _green(rng, 0.45),
            widest=0.4,
            blunt=1,
        )
    image = image.filter(ImageFilter.GaussianBlur(rng.gamma(1.5, 0.35) * OVERSAMPLE * wild)).reduce(OVERSAMPLE)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    a = rng.uniform(0, TURN)
    light = 1 + rng.uniform(0, 0.35) * (x * np.cos(a) + y * np.sin(a)) - rng.uniform(0, 0.2) * (x**2 + y**2)
    pixels = np.asarray(image, float) * light[..., None] * rng.normal(1, 0.06, 3) * rng.uniform(0.75, 1.15)
    pixels += rng.normal(0, rng.uniform(1, 1 + 8 * wild), pixels.shape)
    return np.clip(pixels, 0, 255).astype("uint8")


class DrawnFlowers(tfds.core.GeneratorBasedBuilder):
    """TFDS data set ``drawn_flowers``: PHOTOS drawn flowers of five kinds, in one split."""

    VERSION = tfds.core.Version("1.0.0")
    SEED = 1

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Drawn photos of five kinds of flowers, told apart by their form.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 3)),
                    "label": tfds.features.ClassLabel(names=list(FLOWERS)),
                }
            ),
            supervised_keys=("image", "label"),
            license=LICENCE,
            disable_shuffling=True,  # the kinds come in turn, so every share of the photos has as many of each
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        kinds = list(FLOWERS)
        for index in range(PHOTOS):
            kind = kinds[index % len(kinds)]
            rng = np.random.default_rng([self.SEED, index])
            yield f"{kind}-{index:04d}", {"image": photo(FLOWERS[kind], rng, WILD), "label": kind}


def draw_things(count, seed):
    """Photos of the pre-training's task, its things in turn.

    Returns
    -------
    photos : numpy.ndarray
        uint8, of shape (count, SIDE, SIDE, 3).
    labels : numpy.ndarray
        int, of shape (count,): places in THINGS.
    """
    labels = np.arange(count) % len(THINGS)
    paints = list(THINGS.values())
    return np.stack([photo(paints[k], np.random.default_rng([seed, i]), 0) for i, k in enumerate(labels)]), labels
