"""Pages of compositions: `composing` asks, `jobs` shows and controls, `results` hands out."""
