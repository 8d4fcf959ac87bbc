"""Paths of the machines that the project was made on: none of its files may hold one."""

# Cut in two, so that this file holds none.
_PATHS = tuple(a + b for a, b in (("/wo", "rk/"), ("/ho", "me/"), ("shared/", "briefs"), ("/.lib", "rary")))


def foreign_paths(content: bytes) -> list[str]:
    """Return those that ``content`` holds."""
    return [path for path in _PATHS if path.encode() in content]
