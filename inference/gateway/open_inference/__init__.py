"""Answer health and metadata of the Open Inference Protocol over HTTP."""
