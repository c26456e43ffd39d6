"""How versions and hosts are doing, in words, and what people ask for versions."""
