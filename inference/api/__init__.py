"""Serve predictions and models by Django, with the gateway's plan run synchronously."""
