"""The OpenAPI document, typed from each model's signature."""
