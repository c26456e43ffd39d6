"""Run tensors on a CPU or a CUDA device, and recognise the device's failures."""
