"""What operators look with: it reads what the services wrote, and is imported by none of them."""
