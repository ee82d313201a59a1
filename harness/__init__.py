"""Which small LLM can be test-time fine-tuned inside a budget of hours, on the hardware at hand."""

__version__ = "0.1.0"
