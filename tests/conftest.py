"""What every test shares: one thread, so that tests don't fight for cores."""

import torch

torch.set_num_threads(1)
