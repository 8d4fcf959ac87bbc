"""What pages are made from in tests, and what they hold."""

import json
import re
from pathlib import Path


def found(name):
    """The document ``name`` that a command once printed, from the folder of data."""
    return json.loads((Path(__file__).parent / "data" / f"{name}.json").read_text(encoding="utf-8"))


def embedded(page):
    """The figures in a page's text."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1))
