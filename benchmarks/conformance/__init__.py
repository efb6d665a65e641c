"""What the conformance kit's numbers are chosen from."""
