"""Generate the OpenAPI document, typed by each model's signature."""
