"""Whether the hub can be reached, known within seconds: its client's own retries take half a minute."""

import os
import threading
import urllib.error
import urllib.request

WITHIN_S = 3.0


def hub() -> str:
    """The hub's address."""
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def reachable(url: str, seconds: float = WITHIN_S) -> bool:
    """Whether `url` answers within `seconds`, the look-up of its name included, which Python's time-outs leave out."""
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(_answers(url, seconds)), daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers and answers[0])


def _answers(url: str, seconds: float) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds):
            return True
    except urllib.error.HTTPError:
        return True  # it answered
    except (OSError, ValueError):
        return False
