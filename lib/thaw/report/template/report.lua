-- Pandoc filter from the report's Markdown to the functions of report.typ.
-- The parts of the report are divs with a class; everything else is prose.

local PARTS = { titlepage = true, title = true, subtitle = true, facts = true, warning = true, notes = true }
local title, shift, anchors = nil, 0, {}

local function quoted(text)
  return '"' .. text:gsub('[\\"]', "\\%0") .. '"'
end

local function anchor(inlines) -- as in the HTML report
  return (pandoc.utils.stringify(inlines):gsub(" ", "-"))
end

-- A title page gives the title, and then its sections (##) start at level 1.
-- Without one the first heading is the title and stays where it is.
local function survey(doc)
  local lowest = 9
  doc:walk {
    Div = function(div)
      if div.classes:includes("title") then title = title or div.content[1].content end
    end,
    Header = function(header)
      lowest = math.min(lowest, header.level)
      anchors[anchor(header.content)] = true
    end,
  }
  shift = lowest < 9 and lowest - 1 or 0
  if not title then
    doc:walk { Header = function(header) title = title or header.content end }
  end
  doc.meta.title = pandoc.Inlines(pandoc.utils.stringify(title or doc.meta.title))
  return doc
end

local seen = {}
local function header(head)
  head.level = head.level - shift
  local name = anchor(head.content)
  head.identifier = seen[name] and "" or name
  seen[name] = true
  return head
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

local function rawinline(raw)
  if raw.text:match("^<br%s*/?>$") then return pandoc.LineBreak() end
end

local function span(this)
  if this.classes:includes("muted") then
    this.content:insert(1, pandoc.RawInline("typst", "#report-muted["))
    this.content:insert(pandoc.RawInline("typst", "]"))
    return this.content
  end
end

local function tab(this)
  for _, column in ipairs(this.colspecs) do column[2] = nil end -- Typst knows the widths better
  if #this.caption.long == 0 then this.classes:insert("typst:no-figure") end
  return this
end

-- Pandoc's own writer leaves the alternative text out.
local function image(this)
  local inside, mime, contents = pcall(pandoc.mediabag.fetch, this.src)
  if this.src:match("^%a+://") or not inside or not mime then
    error(this.src .. " is not inside the report: save it in the notebook's folder.", 0)
  end
  local name = pandoc.utils.sha1(contents) .. "." .. mime:match("^image/(%a+)")
  pandoc.mediabag.insert(name, mime, contents)
  return pandoc.RawInline("typst", "#box(image(" .. quoted(name) .. ", alt: "
    .. quoted(pandoc.utils.stringify(this.caption)) .. "))")
end

local function figure(this)
  local inlines = this.content[1].content
  inlines:insert(1, pandoc.RawInline("typst", "#figure(kind: image, ["))
  inlines:insert(pandoc.RawInline("typst", "], caption: ["))
  inlines:extend(this.content[2].content)
  inlines:insert(pandoc.RawInline("typst", "])"))
  return pandoc.Plain(inlines)
end

local function div(this)
  local class = this.classes[1]
  if class == "figure" then
    return figure(this)
  elseif class == "table" then
    local caption = this.content:remove(1)
    this.content[1].caption = { long = { pandoc.Plain(caption.content) } }
    this.content[1].classes = {}
    return this.content
  elseif PARTS[class] then
    if class == "facts" then this.content[1].head.rows = {} end
    this.content:insert(1, pandoc.RawBlock("typst", "#report-" .. class .. "["))
    this.content:insert(pandoc.RawBlock("typst", "]"))
    return this.content
  end
end

return {
  { Pandoc = survey },
  { Header = header, Link = link, RawInline = rawinline, Span = span, Image = image, Table = tab },
  { Div = div },
  { Str = str },
}
