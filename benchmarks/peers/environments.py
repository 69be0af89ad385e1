"""An environment of its own for each peer, made once and kept."""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum
from pathlib import Path

HERE = Path(__file__).parent


class Peer(StrEnum):
    """A system by the name of its package; what it needs lies beside this file."""

    RECTOOLS = "rectools"
    REPLAY = "replay"

    @property
    def requirements(self) -> Path:
        """What pip installs."""
        return HERE / f"requirements-{self}.txt"


def environment(peer: Peer, home: Path) -> Path:
    """The interpreter of the peer's environment under `home`, made where it is not there yet, or was made of other
    requirements."""
    stamp, told = home / peer / "installed.txt", peer.requirements.read_text(encoding="utf-8")
    python = home / peer / "bin" / "python"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != told:
        subprocess.run([sys.executable, "-m", "venv", str(home / peer)], check=True)
        command = [str(python), "-m", "pip", "install", "-q", "--no-input", "-r", str(peer.requirements)]
        subprocess.run(command, check=True)
        stamp.write_text(told, encoding="utf-8")
    return python
