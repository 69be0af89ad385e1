"""What keeps an import from working, as one sentence: an extra that is missing, or somebody else's package in the way.

The package names of this project are plain words. A repository that owns a `serving/` or `training/` of its own is
found first by Python when it is the working folder; then only `userfm.client` can be used from there.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGES = ("tokenization", "foundation", "serving", "training")
_ROOT = Path(__file__).resolve().parent.parent


def foreign(package: str) -> Path | None:
    """Folder of the package of this name that Python finds, if that is not the one installed beside `userfm`."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # a module made by hand, without a spec: nobody's package but the caller's
        return Path(package)
    if spec is None:
        return None
    folders = (
        [Path(spec.origin).parent] if spec.origin else [Path(found) for found in spec.submodule_search_locations or ()]
    )
    strange = [folder for folder in folders if folder.resolve().parent != _ROOT]
    return strange[0] if strange else None


def refuse_foreign(what: str, package: str) -> None:
    """Raise ImportError where `what` needs `package` and Python finds another one of that name."""
    folder = foreign(package)
    if folder is not None:
        raise ImportError(
            f"{what} needs userfm's own package {package!r}, but Python finds another one in {folder}; run it from "
            "another folder, or use userfm.client, which needs nothing but a server's address",
            name=package,
        )


def missing(what: str, extra: str, error: ImportError) -> str | None:
    """The sentence about an import that failed, naming the extra that `what` needs; None where it is none's fault."""
    package = (error.name or "").partition(".")[0]
    if package in PACKAGES:
        folder = foreign(package)
        return None if folder is None else _said(what, package)
    if isinstance(error, ModuleNotFoundError) and package:
        return f"{what} needs {package}, which is not installed; run: pip install 'userfm[{extra}]'"
    return None


def _said(what: str, package: str) -> str | None:
    try:
        refuse_foreign(what, package)
    except ImportError as error:
        return str(error)
    return None
