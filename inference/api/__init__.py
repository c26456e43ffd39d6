"""Serve predictions and models by Django: the same plan, run synchronously."""
