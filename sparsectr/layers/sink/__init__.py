"""What a query reads beside its keys."""
