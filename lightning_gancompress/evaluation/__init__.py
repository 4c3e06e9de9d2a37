"""Measuring generators at validation and test."""
