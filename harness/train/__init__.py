import logging

# bitsandbytes names on stderr, as soon as peft imports it, kernels of the hub that it does without.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
