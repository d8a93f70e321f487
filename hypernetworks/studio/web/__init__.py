"""Serving the page: who may talk to it, and what it gives out."""
