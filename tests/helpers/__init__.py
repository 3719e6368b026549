"""What several test files need: small runs, public layouts made up, servers and models that stand in."""
