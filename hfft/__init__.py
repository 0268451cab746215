"""hfft: one strict recipe fine-tunes a pretrained vision or text model. The public API, imported when first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hfft.messages import speak_in_session

if TYPE_CHECKING:
    from hfft.pipeline import finetune
    from hfft.predict import Result, load
    from hfft.preflight import check
    from hfft.recipe import Recipe
    from hfft.tasks.base import Task

__version__ = "0.1.0"

_HOME = {
    "finetune": "hfft.pipeline",
    "load": "hfft.predict",
    "Result": "hfft.predict",
    "check": "hfft.preflight",
    "Recipe": "hfft.recipe",
    "Task": "hfft.tasks.base",
}

__all__ = ["Recipe", "Result", "Task", "__version__", "check", "finetune", "load"]


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # a type checker would take any name for a public one

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'hfft' has no attribute {name!r}")
        speak_in_session()
        return getattr(import_module(_HOME[name]), name)
