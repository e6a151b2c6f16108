#include "report/page_style.h"

namespace llmc {
namespace {

constexpr absl::string_view kStyle = R"css(
:root{color-scheme:light dark;
--bg:#f6f6f3;--card:#fff;--ink:#15191e;--soft:#59636e;--faint:#6a747e;--line:#e2e4e0;--wash:#f1f2ee;
--accent:#1b5e9f;--ok:#0a6b4c;--okbg:#e3f3ec;--warn:#9a4a00;--warnbg:#fdf0e0;--bad:#a81e16;--badbg:#fce9e7;
--e0:#f0f4d8;--e1:#dcecbd;--e2:#b9dfb6;--e3:#84cbb8;--e4:#4ab4c1;--e5:#2390bd;--e6:#2467a9;--e7:#263c90;--e8:#131f5e;
--rng:#b4dfe4;--rngfb:#eea878;--none:#e9eae6;--nf:#cc79a7;--fb:#d55e00;
--sPlan:#9aa1a8;--sLoad:#56b4e9;--sCapture:#0072b2;--sReduce:#cc79a7;--sSolve:#d55e00;--sPropagate:#009e73;
--sWrite:#e69f00;--sCommit:#6b7680;--sVerify:#9aa1a8;
--mono:ui-monospace,"SF Mono","Cascadia Mono","JetBrains Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;
--yl:9.6rem}
@media (prefers-color-scheme:dark){:root{
--bg:#0e1216;--card:#161b21;--ink:#e7eaed;--soft:#9aa5b0;--faint:#84909b;--line:#29313a;--wash:#1c232b;
--accent:#74b4f3;--ok:#56cc97;--okbg:#12301f;--warn:#f2a65a;--warnbg:#33230f;--bad:#ff8d83;--badbg:#3a1a18;
--e0:#15263f;--e1:#173a5d;--e2:#17537b;--e3:#1c6f92;--e4:#2f8c9f;--e5:#54a99f;--e6:#89c599;--e7:#c1dd98;--e8:#fbf3ad;
--rng:#2c6470;--rngfb:#b05a21;--none:#20272f;
--sCapture:#3a93d4;--sSolve:#e8722a;--sCommit:#7d8893}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 ui-sans-serif,system-ui,-apple-system,"Segoe UI",
Roboto,"Helvetica Neue","Noto Sans","Liberation Sans",Arial,sans-serif;font-variant-numeric:tabular-nums lining-nums}
main,header,footer{max-width:1120px;margin:0 auto;padding:0 24px}
header{padding-top:36px}
.brand{display:flex;align-items:center;gap:10px;color:var(--soft);font-size:13px;letter-spacing:.01em}
.brand b{font-family:var(--mono);color:var(--ink);font-weight:700;letter-spacing:-.02em}
.brand .sep{color:var(--faint)}
h1{margin:10px 0 4px;font-size:31px;line-height:1.18;font-weight:680;letter-spacing:-.022em;overflow-wrap:anywhere}
.sub{margin:0;color:var(--soft);overflow-wrap:anywhere}
.lead{margin:18px 0 0;padding:13px 16px;border-radius:10px;display:flex;gap:12px;align-items:baseline;overflow-wrap:anywhere}
.lead .mark{flex:none;font-weight:700}
.lead b{font-weight:650}.lead>span:last-child{min-width:0}
.ok{background:var(--okbg)}.ok .mark,.ok b{color:var(--ok)}
.warn{background:var(--warnbg)}.warn .mark,.warn b{color:var(--warn)}
.bad{background:var(--badbg)}.bad .mark,.bad b{color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(3,1fr);gap:1px;margin:16px 0 0;padding:0;background:var(--line);
border:1px solid var(--line);border-radius:12px;overflow:hidden}
.tile{background:var(--card);padding:15px 18px 16px;min-width:0}
.tile h2{margin:0;font-size:12.5px;font-weight:560;color:var(--soft);letter-spacing:0;display:block}
.tile .big{margin:3px 0 2px;font-size:27px;line-height:1.2;font-weight:640;letter-spacing:-.02em;white-space:nowrap}
.tile .big small{font-size:15px;font-weight:540;color:var(--soft);letter-spacing:-.005em}
.tile p{margin:0;font-size:13px;color:var(--soft);overflow-wrap:anywhere}
.gauge{position:relative;height:6px;margin:9px 0 8px;border-radius:3px;background:var(--wash);box-shadow:inset 0 0 0 1px var(--line)}
.gauge i{position:absolute;left:0;top:0;bottom:0;border-radius:3px;background:var(--accent)}
.gauge u{position:absolute;top:-3px;bottom:-3px;width:2px;margin-left:-1px;background:var(--ink)}
nav{display:flex;flex-wrap:wrap;gap:4px 18px;margin:20px 0 0;font-size:13.5px}
nav a{color:var(--soft);text-decoration:none;border-bottom:1px solid transparent}
nav a:hover{color:var(--accent);border-color:currentColor}
a:focus-visible,summary:focus-visible{outline:2px solid var(--accent);outline-offset:3px;border-radius:3px}
section{margin:22px 0 0;padding:22px 24px 24px;background:var(--card);border:1px solid var(--line);border-radius:12px;min-width:0}
section>h2{margin:0;font-size:18px;font-weight:650;letter-spacing:-.012em}
section>h2+p,.note{margin:3px 0 0;color:var(--soft);font-size:13.5px;max-width:74ch}
h3{margin:26px 0 4px;font-size:14px;font-weight:630}
.plot{display:grid;grid-template-columns:var(--yl) minmax(0,1fr);column-gap:10px;margin-top:16px}
.plot .ys{position:relative;font-size:12px;color:var(--soft)}
.plot .ys span{position:absolute;right:0;max-width:100%;transform:translateY(-50%);white-space:nowrap;line-height:1.35;overflow:hidden;text-overflow:ellipsis}
.plot .ys .pre{position:static;transform:none;color:var(--faint)}
.plot .pl{position:relative;height:var(--h);min-width:0}
.plot svg{display:block;width:100%;height:100%;overflow:visible}
.plot .xs{grid-column:2;position:relative;height:21px;font-size:12px;color:var(--soft)}
.plot .xs span{position:absolute;top:5px;transform:translateX(-50%);white-space:nowrap;line-height:1.2}
.plot .xs .first{transform:none}.plot .xs .last{transform:translateX(-100%)}
.plot .xt{grid-column:2;font-size:12px;color:var(--faint);margin-top:1px}
.slim{--yl:4.6rem}
.heat .pl{border-radius:3px;overflow:hidden}
.heat rect{stroke:var(--card);stroke-width:1;vector-effect:non-scaling-stroke}
.tag{position:absolute;font-size:12px;line-height:1;padding:2px 5px;border-radius:4px;background:var(--card);color:var(--soft);transform:translateY(-50%);white-space:nowrap}
.grid{stroke:var(--line);stroke-width:1;vector-effect:non-scaling-stroke}
.rng{fill:var(--rng)}.med{fill:var(--ink)}.rngfb{fill:var(--rngfb)}
.e0{fill:var(--e0)}.e1{fill:var(--e1)}.e2{fill:var(--e2)}.e3{fill:var(--e3)}.e4{fill:var(--e4)}
.e5{fill:var(--e5)}.e6{fill:var(--e6)}.e7{fill:var(--e7)}.e8{fill:var(--e8)}.en{fill:var(--none)}.nf{fill:var(--nf)}
.fb{fill:var(--fb)}
.sPlan,.sSubmit,.sClaim{fill:var(--sPlan)}.sLoad{fill:var(--sLoad)}.sCapture{fill:var(--sCapture)}
.sReduce{fill:var(--sReduce)}.sSolve{fill:var(--sSolve)}.sPropagate{fill:var(--sPropagate)}.sWrite{fill:var(--sWrite)}
.sCommit{fill:var(--sCommit)}.sVerify{fill:var(--sVerify)}
.odd{fill:var(--wash)}.even{fill:var(--line)}
.marea{fill:var(--accent);opacity:.16}.mline{fill:none;stroke:var(--accent);stroke-width:1.8;vector-effect:non-scaling-stroke}
.mmed{fill:none;stroke:var(--faint);stroke-width:1;vector-effect:non-scaling-stroke}
.plan{stroke:var(--ink);stroke-width:1.4;stroke-dasharray:5 4;vector-effect:non-scaling-stroke}
.budget{stroke:var(--fb);stroke-width:1.8;vector-effect:non-scaling-stroke}
.key{display:flex;flex-wrap:wrap;gap:5px 16px;margin:12px 0 0;padding:0;list-style:none;font-size:12.5px;color:var(--soft)}
.key li{display:flex;align-items:center;gap:6px}
.key svg{width:12px;height:12px;flex:none}.key .wide svg{width:22px}
.scale{display:inline-flex;flex-direction:column;gap:3px}
.scale svg{width:198px;height:10px;border-radius:2px}
.scale span{display:flex;justify-content:space-between;font-size:11.5px;line-height:1}
.scroll{overflow-x:auto;margin-top:12px;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;width:100%;font-size:13.5px}
th{font-weight:560;color:var(--soft);text-align:left;font-size:12.5px;vertical-align:bottom;white-space:nowrap}
th,td{padding:6px 16px 6px 0;border-bottom:1px solid var(--line)}
tr:last-child>td{border-bottom:0}
th:last-child,td:last-child{padding-right:0}
td{vertical-align:baseline}
.n{text-align:right;white-space:nowrap}
.m,code,pre{font-family:var(--mono);font-size:12.5px}
td.m{overflow-wrap:anywhere;min-width:12rem}td.t{white-space:nowrap}td.long{overflow-wrap:anywhere;min-width:9rem}
.m .pre{color:var(--faint)}
.ebar{display:inline-block;vertical-align:middle;width:56px;height:7px;margin-left:9px;border-radius:2px;background:var(--wash);overflow:hidden}
.ebar i{display:block;height:100%;background:var(--accent)}
.chip{display:inline-block;padding:0 7px;border-radius:9px;font-size:12px;line-height:1.55;background:var(--warnbg);color:var(--warn);white-space:nowrap}
.chip.bad{background:var(--badbg);color:var(--bad)}
.why{display:block;color:var(--soft);font-family:ui-sans-serif,system-ui,sans-serif;font-size:12.5px;overflow-wrap:anywhere}
details{margin-top:16px}
summary{cursor:pointer;color:var(--accent);font-size:13.5px;width:fit-content}
details[open]>summary{margin-bottom:4px}
.tall{max-height:30rem;overflow:auto}
.tall thead th{position:sticky;top:0;background:var(--card);box-shadow:0 1px 0 var(--line);border-bottom:0}
pre{margin:10px 0 0;padding:12px 14px;background:var(--wash);border-radius:8px;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.55;max-height:32rem;overflow-y:auto}
dl{display:grid;grid-template-columns:fit-content(40%) minmax(0,1fr);gap:5px 22px;margin:12px 0 0;font-size:13.5px}
dt{color:var(--soft);overflow-wrap:anywhere}dd{margin:0;overflow-wrap:anywhere}
.cols{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:0 40px}
.cols h3{margin-top:18px}
.warns{margin:12px 0 0;padding:0;list-style:none}
.warns li{padding:9px 0;border-top:1px solid var(--line);overflow-wrap:anywhere}
.warns li:first-child{border-top:0}
.warns .where{display:block;font-size:12.5px;color:var(--soft)}
.quiet{color:var(--soft);margin:10px 0 0;font-size:13.5px}
footer{padding-top:22px;padding-bottom:44px;color:var(--soft);font-size:12.5px}
@media (max-width:760px){
:root{--yl:4.9rem}
main,header,footer{padding-left:14px;padding-right:14px}
header{padding-top:22px}
h1{font-size:24px}
section{padding:17px 15px 18px;margin-top:14px}
.tiles{grid-template-columns:repeat(2,1fr)}
.tile{padding:12px 13px}.tile .big{font-size:21px;white-space:normal;overflow-wrap:anywhere}.tile .big small{display:block;font-size:13px}
.brand{flex-wrap:wrap;gap:2px 8px}
.plot{column-gap:7px}.plot .ys,.plot .xs{font-size:11px}.plot .ys .pre,.alt{display:none}
.cols{grid-template-columns:minmax(0,1fr)}
dl{gap:5px 14px}
.cards thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.cards,.cards tbody{display:block}
.cards tr{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:2px 14px;padding:11px 0;border-bottom:1px solid var(--line)}
.cards tr:last-child{border-bottom:0}
.cards td{display:flex;justify-content:space-between;gap:8px;padding:0;border:0;text-align:right;min-width:0;font-size:13px}
.cards td::before{content:attr(data-l);color:var(--soft);font-size:12.5px;text-align:left}
.cards td.m{grid-column:1/-1;display:block;text-align:left;padding-bottom:3px}.cards td.m::before{content:none}
.cards td.t,.cards td.n{white-space:normal;overflow-wrap:anywhere}
.cards td.idx,.cards td.void{display:none}
.cards .ebar{display:none}
.cards .wide{grid-column:1/-1}}
@media (max-width:400px){.tile .big{font-size:19px}}
@media print{
:root{color-scheme:light;--bg:#fff;--card:#fff}
body{font-size:12px}header{padding-top:0}main,header,footer{max-width:none;padding-left:0;padding-right:0}
nav,summary{display:none}section,.tiles{break-inside:avoid-page;border-color:#bbb}section.long{break-inside:auto}
tr,.plot{break-inside:avoid}.tall,pre{max-height:none;overflow:visible}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
)css";

}  // namespace

absl::string_view PageStyle() { return kStyle; }

}  // namespace llmc
