"""All colours of the reports: of the HTML page and of the figures in it."""

from mm_tuning_plugin.visualization.palette import OKABE_ITO

#: By the name under which `report.css.j2` uses them.
PAGE = {
    'text': '#1b1b1b',
    'background': '#fff',
    'caption': '#333',
    'link': '#004a8f',
    'line': '#ccc',
    'box': '#f5f5f5',
    'table_head': '#ececec',
    'marked_row': '#fff6dc',
    # The border of a verdict.
    'gain': '#0072b2',
    'loss': '#d55e00',
    'unchanged': '#767676',
    # A reservation about a verdict.
    'mark': '#ffe9a8',
    'mark_text': '#4a3300',
    'mark_line': '#8a6100',
}
#: Of the curves in figures, chosen for colour-blind readers. The seventh colour is left out,
#: as it is too light on white.
COLOURS = [f'#{r:02x}{g:02x}{b:02x}' for r, g, b in OKABE_ITO[:6]]
GREY = '#444444'
GRID = '#dddddd'
