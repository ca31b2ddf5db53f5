"""From votes to figures: strengths, rates, agreement, and how much they would vary with other raters and prompts."""
