"""The same experiment in plain PyTorch, as a competent user would write it.

Photos are decoded and resized once and stay in memory; the whole network runs in every epoch, frozen parts in
inference mode and without gradients, ``channels_last``, in bfloat16 by autocast if the experiment asks for it. The two
networks have Keras' shapes and weights, and the photos Thaw's order, so that the losses can be compared.

    python benchmarks/plain_torch.py '{"backbone": "resnet50", "strategy": "blocks", "amount": 2, ...}'

``"compile": true`` among the parameters lets ``torch.compile`` have the network. Prints what ``plain.py`` prints.
Needs ``pip install torch``.
"""

import json
import os
import resource
import sys
import time

began = time.perf_counter()

import h5py
import keras
import numpy as np
import photos
import tensorflow as tf
import torch
from torch import nn

parameters = json.loads(sys.argv[1])
size, batch_size = parameters["image_size"], parameters["batch_size"]
half = parameters["precision"] == "mixed_bfloat16"
torch.set_num_threads(len(os.sched_getaffinity(0)))
imported = time.perf_counter()

# ---- data ----
images, labels, classes, (train, validation, test) = photos.decoded(
    parameters["dataset"], parameters["max_examples"], size
)
images, labels = torch.from_numpy(images), torch.from_numpy(labels)
first = train.stop
decoded = time.perf_counter()


# ---- network: each unit is a block, its layers in Keras' order and number ----
def norm(channels, eps):
    return nn.BatchNorm2d(channels, eps=eps, momentum=0.01)


class Bottleneck(nn.Module):
    """A block of ResNet50 as Keras has it: the first convolution strides."""

    def __init__(self, taken, width, stride, shortcut):
        super().__init__()
        eps, given = 1.001e-5, 4 * width
        self.conv1, self.bn1, self.relu1 = nn.Conv2d(taken, width, 1, stride), norm(width, eps), nn.ReLU()
        self.conv2, self.bn2, self.relu2 = nn.Conv2d(width, width, 3, padding=1), norm(width, eps), nn.ReLU()
        if shortcut:
            self.conv0 = nn.Conv2d(taken, given, 1, stride)
        self.conv3 = nn.Conv2d(width, given, 1)
        if shortcut:
            self.bn0 = norm(given, eps)
        self.bn3, self.add, self.out = norm(given, eps), nn.Identity(), nn.ReLU()
        self.shortcut = shortcut

    def forward(self, x):
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(y)))))
        return self.out(y + (self.bn0(self.conv0(x)) if self.shortcut else x))


def resnet50():
    stem = [nn.ZeroPad2d(3), nn.Conv2d(3, 64, 7, 2), norm(64, 1.001e-5), nn.ReLU(), nn.ZeroPad2d(1), nn.MaxPool2d(3, 2)]
    units, taken = [nn.Sequential(*stem)], 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for k in range(blocks):
            units.append(Bottleneck(taken, width, stride if k == 0 else 1, k == 0))
            taken = 4 * width
    return nn.Sequential(*units)


def mobilenet():
    def part(taken, given, kernel, stride=1, groups=1):
        pad = [nn.ZeroPad2d((0, 1, 0, 1))] if stride == 2 else []
        inner = 0 if stride == 2 else kernel // 2
        convolution = nn.Conv2d(taken, given, kernel, stride, inner, groups=groups, bias=False)
        return [*pad, convolution, norm(given, 1e-3), nn.ReLU6()]

    units, taken = [nn.Sequential(*part(3, 32, 3, 2))], 32
    last = ((512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1))
    for given, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *last):
        units.append(nn.Sequential(*part(taken, taken, 3, stride, taken), *part(taken, given, 1)))
        taken = given
    return nn.Sequential(*units)


def load(base, path):
    """Take the weights of a Keras file, whose layers stand in the same order."""
    with h5py.File(path) as file:
        weights = [file[name].attrs["weight_names"] for name in file.attrs["layer_names"]]
        kept = [
            [np.array(file[name][weight]) for weight in names]
            for name, names in zip(file.attrs["layer_names"], weights)
            if len(names)
        ]
    for module, values in zip(with_weights(base), kept, strict=True):
        if isinstance(module, nn.Conv2d):
            values[0] = values[0].transpose((2, 3, 0, 1) if module.groups > 1 else (3, 2, 0, 1))
        for tensor, value in zip(module.state_dict().values(), values):
            tensor.copy_(torch.from_numpy(value.copy()))


def with_weights(module):
    return [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d)]


base = {"resnet50": resnet50, "mobilenet": mobilenet}[parameters["backbone"]]()
load(base, os.path.join(os.environ["THAW_WEIGHTS_DIR"], f"{parameters['backbone']}.h5"))
head = nn.Linear({"resnet50": 2048, "mobilenet": 1024}[parameters["backbone"]], classes)
start = keras.initializers.GlorotUniform(parameters["seed"])((head.in_features, classes))
head.weight.data, head.bias.data = torch.from_numpy(np.array(start).T.copy()), torch.zeros(classes)
base = base.to(memory_format=torch.channels_last)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.base, self.head = base, head

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            pooled = self.base(x).mean((2, 3))
        return self.head(pooled.float())


network = Network()
run = torch.compile(network) if parameters.get("compile") else network


# ---- training ----
def preprocessed(chosen):
    x = images[chosen].permute(0, 3, 1, 2).float()  # channels last in memory, as the photos are
    if parameters["backbone"] == "mobilenet":
        return x / 127.5 - 1
    return (
        x.flip(1)
        .sub_(torch.tensor([103.939, 116.779, 123.68])[:, None, None])
        .contiguous(memory_format=torch.channels_last)
    )


def evaluated(part):
    network.eval()
    with torch.inference_mode():
        rows = torch.arange(part.start, part.stop).split(batch_size)
        losses = [
            nn.functional.cross_entropy(run(preprocessed(chosen)), labels[chosen], reduction="sum") for chosen in rows
        ]
    return float(sum(losses)) / (part.stop - part.start)


def fit(epochs, learning_rate, trained):
    """Train ``trained``, the modules that change; all others stay in inference mode."""
    network.requires_grad_(False)
    for module in trained:
        module.requires_grad_(True)
    optimizer = torch.optim.Adam(
        [p for p in network.parameters() if p.requires_grad], learning_rate, eps=1e-7, fused=True
    )
    seconds = []
    for epoch in epochs:
        epoch_began = time.perf_counter()
        network.eval()
        for module in trained:
            module.train()
        seed = [parameters["seed"], epoch]
        order = torch.from_numpy(
            tf.random.experimental.stateless_shuffle(tf.range(first, dtype=tf.int64), seed).numpy()
        )
        losses = []
        for chosen in order.split(batch_size):
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(run(preprocessed(chosen)), labels[chosen])
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()) * len(chosen))
        validation_loss = evaluated(validation)
        seconds.append(time.perf_counter() - epoch_began)
    return sum(losses) / first, validation_loss, seconds


head_epochs, finetune_epochs = parameters["head_epochs"], parameters["finetune_epochs"]
train_loss, validation_loss, head_seconds = fit(range(head_epochs), parameters["head_learning_rate"], [head])
finetune_seconds = []
if parameters["strategy"] != "frozen":
    if parameters["strategy"] == "blocks":
        chosen = with_weights(base[-parameters["amount"] :])
    else:
        layers = [part for part in base.modules() if not list(part.children())]
        chosen = with_weights(nn.ModuleList(layers[-parameters["amount"] :]))
    epochs = range(head_epochs, head_epochs + finetune_epochs)
    train_loss, validation_loss, finetune_seconds = fit(epochs, parameters["finetune_learning_rate"], [head, *chosen])

# ---- test ----
test_began = time.perf_counter()
evaluated(test)
ended = time.perf_counter()

print(
    json.dumps(
        {
            "start": imported - began + test_began - decoded - sum(head_seconds) - sum(finetune_seconds),
            "photos": decoded - imported,
            "activations": 0.0,
            "head": head_seconds,
            "finetune": finetune_seconds,
            "test": ended - test_began,
            "whole": ended - began,
            "train_loss": train_loss,
            "validation_loss": validation_loss,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
            "disk_mb": 0.0,
        }
    )
)
