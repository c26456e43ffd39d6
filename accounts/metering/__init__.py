"""Write each answered call to disk as a usage event, before its answer leaves."""
