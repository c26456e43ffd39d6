"""Tests of the sandbox: each enters it in a process of its own."""
