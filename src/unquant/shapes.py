"""Array types used across the package (jaxtyping). A size name that repeats in one signature must agree.

h, w are image sizes in pixels; h16 = ceil(h / 16) and w16 = ceil(w / 16) are latent sizes.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

Image = Float[Tensor, "b 3 h w"]
"""RGB, values in [0, 1]."""
Latent = Float[Tensor, "b c h16 w16"]
"""y, in latent units (16 times the amplitude of an orthonormal 16×16 transform of the image)."""
Hyper = Float[Tensor, "b m h64 w64"]
"""z, in its own units of one quantisation step."""
QMap = Float[Tensor, "b 1 hq wq"]
"""log2 of the quantisation step q; hq = wq = 1 for one step per image, or a map at latent resolution."""
