"""torch's dtypes by the names of harness.catalog.precisions.DTYPES."""

import torch

TORCH_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
