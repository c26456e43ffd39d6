"""Load and unload versions within the memory of the device."""
