"""Who judges what, what that can tell, and the blinded copies: from a request to a study directory."""
