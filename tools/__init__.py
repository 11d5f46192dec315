"""What a developer runs around the product: engine, images, broker, demo."""
