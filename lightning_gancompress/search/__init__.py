"""The search for the channels that stay: its phase, and the policies that decide."""
