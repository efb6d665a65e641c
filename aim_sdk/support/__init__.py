"""What every package needs: the terminal, progress, figures, numbers, the machine."""
