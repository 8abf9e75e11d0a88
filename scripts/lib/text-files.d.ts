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
declare module "*/scripts/rescue/unpack-files" {
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
declare module "*/LICENSE" {
  const text: string;
  export default text;
}
declare module "*/build/3rd-party-licenses" {
  const text: string;
  export default text;
}
declare module "*/scripts/licenses/bun.txt" {
  const text: string;
  export default text;
}
declare module "*/scripts/licenses/LGPL-2.0.txt" {
  const text: string;
  export default text;
}
declare module "*/scripts/licenses/LGPL-2.1.txt" {
  const text: string;
  export default text;
}
declare module "*/scripts/network/lan.sh" {
  const text: string;
  export default text;
}
