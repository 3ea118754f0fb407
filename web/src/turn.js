/**
 * The transform of a 2D canvas that turns and mirrors a picture of width × height pixels as EXIF's orientation says, or with
 * `back` takes that from it.
 */
export function turned(orientation, width, height, back = false) {
  // prettier-ignore
  return [
    [1, 0, 0, 1, 0, 0], [-1, 0, 0, 1, width, 0], [-1, 0, 0, -1, width, height], [1, 0, 0, -1, 0, height],
    [0, 1, 1, 0, 0, 0], [0, 1, -1, 0, height, 0], [0, -1, -1, 0, height, width], [0, -1, 1, 0, 0, width],
  ][((back && { 6: 8, 8: 6 }[orientation]) || orientation) - 1];
}
