"""Run models on a CPU or a CUDA device, and recognise failures of the device."""
