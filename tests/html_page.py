"""A page as a browser would see it."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """What a browser would see: tags with attributes, ids, text."""

    VOID = {'meta', 'br', 'hr', 'img', 'link', 'input'}

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.text, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == 'id']
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == 'id']

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
