"""What routes said at any time in the past, and the way back."""
