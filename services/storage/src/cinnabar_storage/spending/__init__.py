"""What language models have cost, and which grades may be made better."""
