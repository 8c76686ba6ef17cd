-- Pandoc filter from the report's page to the functions of report.typ.
-- The parts of the report are divs with a class; all other divs and spans only bear styles.

local PARTS = { titlepage = true, title = true, subtitle = true, facts = true, box = true, warning = true, notes = true }
local shift, anchors = 0, {}
local place = "bottom" -- of the first figure: on the first page

local function quoted(text)
  return '"' .. text:gsub('[\\"]', "\\%0") .. '"'
end

-- The title on a title page is no heading. Then the sections (##) start at level 1.
local function title(div)
  if div.classes:includes("typst-title") then
    div.content = { pandoc.Plain(div.content[1].content) }
    return div
  end
end

local function survey(doc)
  local lowest = 9
  doc:walk {
    Header = function(header)
      lowest = math.min(lowest, header.level)
      anchors[header.identifier] = true
    end,
  }
  shift = lowest < 9 and lowest - 1 or 0
end

local function header(head)
  head.level = head.level - shift
  if head.identifier ~= "How-it-was-measured" then return head end
  return { pandoc.RawBlock("typst", "#set text(9pt)"), head }
end

-- Typst refuses a link to a label that does not exist.
local function link(this)
  local target = this.target:match("^#(.*)")
  if target and not anchors[target] then return this.content end
end

-- As a string, no text means anything to Typst ("--" is not a dash).
local function str(this)
  return pandoc.RawInline("typst", "#" .. quoted(this.text) .. ";")
end

local function span(this)
  return this.content
end

-- Typst gives columns that are too wide together the same width. Those of prose
-- under a header get theirs by the root of all their letters (the claims are then 5 % higher than
-- with the best widths of all), and at least that of a long word.
local function widths(this)
  local letters, words, prose, all = {}, {}, false, 0
  for _, body in ipairs(this.bodies) do
    for _, row in ipairs(body.body) do
      for place, cell in ipairs(row.cells) do
        local text = pandoc.utils.stringify(cell.contents)
        letters[place] = (letters[place] or 0) + #text
        prose = prose or #text > 60
        for word in text:gmatch("%S+") do words[place] = math.max(words[place] or 0, math.min(#word, 14)) end
      end
    end
  end
  for place, sum in ipairs(letters) do
    letters[place] = math.sqrt(sum)
    all = all + letters[place]
  end
  local sum = 0
  for place, length in ipairs(letters) do
    letters[place] = math.max(100 * length / all, (words[place] or 0) + 3)
    sum = sum + letters[place]
  end
  for place, column in ipairs(this.colspecs) do
    column[2] = prose and #this.head.rows > 0 and #letters <= 6 and letters[place] / sum or nil
  end
end

local function tab(this)
  widths(this)
  this.classes = #this.caption.long == 0 and { "typst:no-figure" } or {}
  return this
end

-- Pandoc's own writer leaves the alternative text out.
local function image(this)
  local mime, contents = pandoc.mediabag.fetch(this.src)
  local name = pandoc.utils.sha1(contents) .. "." .. mime:match("^image/(%a+)")
  pandoc.mediabag.insert(name, mime, contents)
  return pandoc.RawInline("typst", "#box(image(" .. quoted(name) .. ", alt: "
    .. quoted(pandoc.utils.stringify(this.caption)) .. "))")
end

-- Lines of a cell become one, with a dot between, but for the parts of a claim: three lines or more of several columns.
local function joined(inner)
  for _, body in ipairs(inner.bodies) do
    for _, row in ipairs(body.body) do
      for place, cell in ipairs(row.cells) do
        local lines = 1
        cell.contents:walk { LineBreak = function() lines = lines + 1 end }
        if #row.cells < 3 or lines < 3 or place == #row.cells then
          cell.contents = cell.contents:walk {
            LineBreak = function() return { pandoc.Space(), pandoc.Str("·"), pandoc.Space() } end,
          }
        end
      end
    end
  end
  return inner
end

-- A table in a figure takes over its caption. Below it are the notes. What the page folds is set small. A figure stands at the head or the foot of a page, so that none is left half empty.
local function figure(this)
  local caption, blocks = this.caption.long, pandoc.Blocks {}
  if this.classes:includes("report-table") then
    local small = this.classes:includes("report-small")
    local content = this.content:walk {
      Table = function(inner)
        inner.caption = { long = caption }
        return small and joined(inner) or inner
      end,
    }
    if not small then return content end
    blocks:insert(pandoc.RawBlock("typst", "#[#set text(7pt);#set table(inset: (x: .5em, y: .26em))"))
    blocks:extend(content)
    blocks:insert(pandoc.RawBlock("typst", "]"))
    return blocks
  end
  blocks:insert(pandoc.RawBlock("typst", "#figure(kind: image, placement: " .. place .. ", ["))
  place = "auto"
  blocks:extend(this.content)
  blocks:insert(pandoc.RawBlock("typst", "], caption: ["))
  blocks:extend(caption)
  blocks:insert(pandoc.RawBlock("typst", "])"))
  return blocks
end

local function div(this)
  local class = (this.classes[1] or ""):match("^typst%-(.*)")
  if PARTS[class] then
    this.content:insert(1, pandoc.RawBlock("typst", "#report-" .. class .. "["))
    this.content:insert(pandoc.RawBlock("typst", "]"))
  end
  return this.content
end

return {
  { Div = title },
  { Pandoc = survey },
  { Figure = figure },
  { Header = header, Link = link, Span = span, Image = image, Table = tab },
  { Div = div },
  { Str = str },
}
