"""What every room needs: the terminal, progress, figures, numbers, the machine."""
