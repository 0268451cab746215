"""What the data layer asks of a task, without one: rows with one class each, or none."""

from types import SimpleNamespace


def task(*columns: str, **more) -> SimpleNamespace:
    """A task with these canonical columns."""
    truth = "class" if "label" in columns else None
    known = {"columns": columns, "truth": truth, "truth_options": {}, "windows": False, "vary": None, "answered": None}
    return SimpleNamespace(**known, meet=lambda source, data: None, **more)
