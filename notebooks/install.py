# Finds the harness, without internet: in this Python, in a folder of wheels, or in a checkout. (notebooks/install.py)

import importlib.util
import os
import subprocess
import sys
from pathlib import Path


def install(inputs: str) -> str:
    """Installs from the folder of wheels (`make wheels`) that is attached under `inputs`; says what was done.

    pip takes nothing from an index, and torch stays what it is: the folder has none. Ends the notebook, in a sentence,
    where there is no harness to be had.
    """
    if importlib.util.find_spec("harness"):
        return "The harness is here already: nothing is installed."
    wheels = sorted(Path(inputs).glob("**/ttft_bench-*.whl"))
    if not wheels:
        # A checkout: this notebook's own, or one that is attached.
        checkouts = [Path.cwd().parent, *(path.parent.parent for path in Path(inputs).glob("**/harness/api.py"))]
        for checkout in checkouts:
            if (checkout / "harness" / "api.py").is_file():
                # This process finds it by the first, the processes that it starts by the second.
                sys.path.insert(0, str(checkout))
                os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(checkout), os.environ.get("PYTHONPATH"))))
                return f"The harness of {checkout} is used; nothing is installed."
        sys.exit(
            f"No harness: attach the folder that `make wheels` made to this notebook (nothing of it is under {inputs})."
        )
    folder = wheels[-1].parent
    # Folders of wheels that were made before had none of gguf.
    wanted = "ttft-bench[gguf]" if any(folder.glob("gguf-*.whl")) else "ttft-bench"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--find-links", str(folder), wanted]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or "pip failed").splitlines()[-1]
        sys.exit(f"The wheels of {folder} cannot be installed: {reason}")
    importlib.invalidate_caches()
    return f"Installed from {folder}, without an index; torch is what it was."
