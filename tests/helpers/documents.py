"""The documents of the project, and the verbs of its command line."""

from pathlib import Path

from typer.main import get_command

from harness.cli import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for pattern in (
        "*.md",
        "docs/*.md",
        "bench/README.md",
        "harness/**/README.md",
        "results/README.md",
        "results/reference/**/*.md",
    )
    for path in ROOT.glob(pattern)
)
VERBS = get_command(app.app).commands
