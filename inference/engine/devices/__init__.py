"""The device under the models: processor or CUDA, copies, graphs, failures."""
