/** Shell files that the program carries as text. */
declare module "*.job" {
  const text: string;
  export default text;
}
declare module "*.pre" {
  const text: string;
  export default text;
}
declare module "*.post" {
  const text: string;
  export default text;
}
declare module "*/scripts/rescue/ask-host" {
  const text: string;
  export default text;
}
declare module "*/scripts/rescue/init" {
  const text: string;
  export default text;
}
declare module "*/scripts/rescue/mount-fstab" {
  const text: string;
  export default text;
}
declare module "*/scripts/rescue/mount-system" {
  const text: string;
  export default text;
}
declare module "*/scripts/rescue/prepare.sh" {
  const text: string;
  export default text;
}
declare module "*/scripts/rescue/runner" {
  const text: string;
  export default text;
}
