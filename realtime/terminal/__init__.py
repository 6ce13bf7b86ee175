"""What a person sees and presses in the terminal."""
