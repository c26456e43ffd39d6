"""Predictions: gateways answer calls, engines run models, a controller directs both."""
